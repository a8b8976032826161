// y_r = (a_r, b_r): see join.ts.
#include "abi.h"
#include "means.h"

namespace lowbit::LOWBIT_BODY {

void join(Arguments a) {
  const float* left = a.floats();
  const float* right = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), m = a.size(), n = a.size();
  eachRow(rows, m + n, [=](int64_t r) {
    float* out = y + r * (m + n);
    for (int64_t c = 0; c < m; c++) out[c] = left[r * m + c];
    for (int64_t c = 0; c < n; c++) out[m + c] = right[r * n + c];
  });
}

void joinBackward(Arguments a) {
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* left = a.floats();
  float* right = a.floats();
  const int64_t rows = a.size(), m = a.size(), n = a.size();
  eachRow(rows, m + n, [=](int64_t r) {
    const float* d = dy + r * (m + n);
    for (int64_t c = 0; left && c < m; c++) left[r * m + c] = d[c];
    for (int64_t c = 0; right && c < n; c++) right[r * n + c] = d[m + c];
  });
}

}  // namespace lowbit::LOWBIT_BODY
