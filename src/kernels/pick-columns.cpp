// y_tk = x_t,places(k): see pick-columns.ts.
#include "abi.h"
#include "means.h"

namespace lowbit::LOWBIT_BODY {

void pickColumns(Arguments a) {
  const float* x = a.floats();
  const int32_t* places = a.integers();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size(), n = a.size();
  eachRow(rows, n, [=](int64_t r) {
    for (int64_t k = 0; k < n; k++) {
      const int64_t place = places[k];
      y[r * n + k] = place >= 0 && place < cols ? x[r * cols + place] : __builtin_nanf("");
    }
  });
}

void pickColumnsBackward(Arguments a) {
  a.floats();
  const int32_t* places = a.integers();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  a.floats();
  const int64_t rows = a.size(), cols = a.size(), n = a.size();
  if (!dx) return;
  eachRow(rows, cols > n ? cols : n, [=](int64_t r) {
    for (int64_t c = 0; c < cols; c++) dx[r * cols + c] = 0;
    for (int64_t k = 0; k < n; k++) {
      const int64_t place = places[k];
      if (place >= 0 && place < cols) dx[r * cols + place] += dy[r * n + k];
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
