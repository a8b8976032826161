// A moved matrix put back on its grid: see snap.ts.
#include "abi.h"
#include "means.h"

namespace lowbit::LOWBIT_BODY {

namespace grid {

// Values of a group, of formats of 8 bits at most.
constexpr int64_t MOST = 256;

LOWBIT_INLINE float valueAt(const float* values, int64_t levels, int64_t code) {
  return code >= 0 && code < levels ? values[code] : __builtin_nanf("");
}

}  // namespace grid

void snap(Arguments a) {
  const float* d = a.floats();
  const int32_t* codes = a.integers();
  const float* l = a.floats();
  const float* s = a.floats();
  const float* o = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size(), levels = a.size(), groups = a.size();
  const bool keepsZeros = a.number() != 0;
  const int64_t width = groups ? cols / groups : cols;
  eachRow(rows, cols * levels, [=](int64_t r) {
    float values[grid::MOST];
    for (int64_t g = 0; g < groups; g++) {
      const float scale = s[r * groups + g], offset = o[r * groups + g];
      for (int64_t k = 0; k < levels; k++) values[k] = scale * l[k] + offset;
      for (int64_t at = r * cols + g * width; at < r * cols + (g + 1) * width; at++) {
        const float w = grid::valueAt(values, levels, codes[at]), target = w + d[at];
        if (keepsZeros && w == 0.0f) {
          y[at] = 0.0f;
          continue;
        }
        float nearest = __builtin_nanf(""), least = __builtin_inff();
        for (int64_t k = 0; k < levels; k++) {
          const float distance = __builtin_fabsf(target - values[k]);
          if (distance < least) {
            least = distance;
            nearest = values[k];
          }
        }
        y[at] = nearest;
      }
    }
  });
}

void snapBackward(Arguments a) {
  a.floats();
  const int32_t* codes = a.integers();
  const float* l = a.floats();
  const float* s = a.floats();
  const float* o = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dd = a.floats();
  for (int i = 0; i < 4; i++) a.floats();
  const int64_t rows = a.size(), cols = a.size(), levels = a.size(), groups = a.size();
  const bool keepsZeros = a.number() != 0;
  const int64_t width = groups ? cols / groups : cols;
  if (!dd) return;
  eachRow(rows, cols, [=](int64_t r) {
    for (int64_t c = 0; c < cols; c++) {
      const int64_t at = r * cols + c, code = codes[at], g = r * groups + c / width;
      const bool stays = keepsZeros && code >= 0 && code < levels && s[g] * l[code] + o[g] == 0.0f;
      dd[at] = stays ? 0.0f : dy[at];
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
