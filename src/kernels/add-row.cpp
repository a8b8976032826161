// y_rc = x_rc + v_c: see add-row.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void addRow(Arguments a) {
  const float* x = a.floats();
  const float* v = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  eachRow(rows, cols, [=](int64_t r) {
    rowOfPair(x + r * cols, v, y + r * cols, cols, [](f32v one, f32v more) { return one + more; });
  });
}

void addRowBackward(Arguments a) {
  for (int skip = 0; skip < 3; skip++) a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  float* dv = a.floats();
  const int64_t rows = a.size(), cols = a.size();
  straightThrough(dy, dx, rows * cols);
  if (dv) columnSums(dv, rows, cols, [=](int64_t at, int n) { return loadSome(dy + at, n); });
}

}  // namespace lowbit::LOWBIT_BODY
