// y_rc = x_rc·v_c: see scale-columns.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void scaleColumns(Arguments a) {
  const float* x = a.floats();
  const float* v = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  eachRow(rows, cols, [=](int64_t r) {
    rowOfPair(x + r * cols, v, y + r * cols, cols, [](f32v one, f32v factor) { return one * factor; });
  });
}

void scaleColumnsBackward(Arguments a) {
  const float* x = a.floats();
  const float* v = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  float* dv = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  if (dx)
    eachRow(rows, cols, [=](int64_t r) {
      rowOfPair(dy + r * cols, v, dx + r * cols, cols, [](f32v one, f32v factor) { return one * factor; });
    });
  if (dv) columnSums(dv, rows, cols, [=](int64_t at, int n) { return loadSome(dy + at, n) * loadSome(x + at, n); });
}

}  // namespace lowbit::LOWBIT_BODY
