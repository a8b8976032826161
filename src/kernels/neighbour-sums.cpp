// y[n, r, c, o] = Σ_ij x[n, r + i − m, c + j − m, o, i, j]: see neighbour-sums.ts.
#include "abi.h"
#include "around.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void neighbourSums(Arguments a) {
  const float* x = a.floats();
  float* y = a.floats();
  const around::Sizes s(a);
  parallel(s.images * s.height, [=](int64_t row) {
    const int64_t r = row % s.height, m = s.middle(), k = s.kernel;
    const int64_t top = r < m ? m - r : 0, bottom = r + m >= s.height ? s.height - r + m : k;
    for (int64_t c = 0; c < s.width; c++) {
      const int64_t left = c < m ? m - c : 0, right = c + m >= s.width ? s.width - c + m : k;
      for (int64_t o = 0; o < s.channels; o++) {
        float sum = 0;
        for (int64_t i = top; i < bottom; i++) {
          const float* line = x + ((row + i - m) * s.width + c - m) * s.each() + (o * k + i) * k;
          for (int64_t j = left; j < right; j++) sum += line[j * s.each() + j];
        }
        y[(row * s.width + c) * s.channels + o] = sum;
      }
    }
  });
}

void neighbourSumsBackward(Arguments a) {
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  const around::Sizes s(a);
  if (!dx) return;
  parallel(s.images * s.height, [=](int64_t row) {
    const int64_t r = row % s.height, m = s.middle(), k = s.kernel;
    float* to = dx + row * s.width * s.each();
    for (int64_t c = 0; c < s.width; c++) {
      for (int64_t o = 0; o < s.channels; o++) {
        for (int64_t i = 0; i < k; i++) {
          const bool inside = r - i + m >= 0 && r - i + m < s.height;
          for (int64_t j = 0; j < k; j++, to++) {
            const int64_t column = c - j + m;
            *to = inside && column >= 0 && column < s.width ? dy[((row - i + m) * s.width + column) * s.channels + o] : 0;
          }
        }
      }
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
