// y[n, r, c, i, j] = x[n, r + i − m, c + j − m]: see neighbourhoods.ts.
#include "abi.h"
#include "around.h"
#include "means.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace around {

// copy(y's place, x's place, length) for what lies inside of the k places of a row around column c.
template <typename Copy> LOWBIT_INLINE void inside(const Sizes& s, int64_t c, Copy copy) {
  const int64_t m = s.middle();
  const int64_t first = c < m ? m - c : 0, end = c + m >= s.width ? s.width - c + m : s.kernel;
  copy(first * s.channels, (c + first - m) * s.channels, (end - first) * s.channels);
}

}  // namespace around

void neighbourhoods(Arguments a) {
  const float* x = a.floats();
  float* y = a.floats();
  const around::Sizes s(a);
  parallel(s.images * s.height, [=](int64_t row) {
    const int64_t r = row % s.height, m = s.middle(), width = s.kernel * s.channels;
    for (int64_t c = 0; c < s.width; c++) {
      float* to = y + (row * s.width + c) * s.each();
      for (int64_t i = 0; i < s.kernel; i++, to += width) {
        for (int64_t l = 0; l < width; l++) to[l] = 0;
        if (r + i - m < 0 || r + i - m >= s.height) continue;
        const float* line = x + (row + i - m) * s.line();
        around::inside(s, c, [=](int64_t at, int64_t from, int64_t n) {
          rowOf(line + from, to + at, n, [](f32v one) { return one; });
        });
      }
    }
  });
}

// A task owns a row of dx, and adds to it in one order what the rows of dy around it have.
void neighbourhoodsBackward(Arguments a) {
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  const around::Sizes s(a);
  if (!dx) return;
  parallel(s.images * s.height, [=](int64_t row) {
    const int64_t r = row % s.height, m = s.middle();
    float* line = dx + row * s.line();
    for (int64_t l = 0; l < s.line(); l++) line[l] = 0;
    for (int64_t i = 0; i < s.kernel; i++) {
      if (r - i + m < 0 || r - i + m >= s.height) continue;
      for (int64_t c = 0; c < s.width; c++) {
        const float* from = dy + ((row - i + m) * s.width + c) * s.each() + i * s.kernel * s.channels;
        around::inside(s, c, [=](int64_t at, int64_t to, int64_t n) {
          rowOfPair(line + to, from + at, line + to, n, [](f32v sum, f32v one) { return sum + one; });
        });
      }
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
