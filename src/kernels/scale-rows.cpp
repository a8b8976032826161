// y_rc = v_r·x_rc: see scale-rows.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void scaleRows(Arguments a) {
  const float* x = a.floats();
  const float* v = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  eachRow(rows, cols, [=](int64_t r) { rowOf(x + r * cols, y + r * cols, cols, [=](f32v one) { return splat(v[r]) * one; }); });
}

void scaleRowsBackward(Arguments a) {
  const float* x = a.floats();
  const float* v = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  float* dv = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  eachRow(rows, cols, [=](int64_t r) {
    const float* d = dy + r * cols;
    if (dx) rowOf(d, dx + r * cols, cols, [=](f32v one) { return splat(v[r]) * one; });
    if (dv) dv[r] = dotOf(d, x + r * cols, cols);
  });
}

}  // namespace lowbit::LOWBIT_BODY
