// Activations as the values of their codes, row by row: see round-rows.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"
#include "top-k.h"

namespace lowbit::LOWBIT_BODY {
namespace roundings {

constexpr int64_t ROWS = 8;  // of one task
constexpr int SIDES = 16;    // sums side by side, as in the reference

// What x is multiplied by before it is rounded, and codes after it; where one of them is 0 the other divides.
struct Scale {
  float inverse, scale;
  bool finite;
};

inline Scale scaleOf(const float* x, int64_t n, double top, int rule, double root) {
  f32v most = splat(0.0f), bad = splat(0.0f);
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) {
    const f32v v = load(x + i);
    most = max(most, abs(v));
    bad = fma(v, splat(0.0f), bad);
  }
  if (i < n) {
    const f32v v = load(x + i, static_cast<int>(n - i));
    most = max(most, abs(v));
    bad = fma(v, splat(0.0f), bad);
  }
  if (sum(bad) != 0.0f) return {0, 0, false};
  if (rule != 1) {
    const double largestOne = largest(most);
    if (rule == 3) {
      const double size = (largestOne + 1e-6) / top;
      return {0, half(nearestHalf(static_cast<float>(size < 65504.0 ? size : 65504.0))), true};
    }
    const double size = rule == 0 ? (largestOne > 1e-5 ? largestOne : 1e-5) : largestOne + 1e-6;
    return {static_cast<float>(top / size), 0, true};
  }
  double sums[SIDES] = {};
  for (i = 0; i + SIDES <= n; i += SIDES)
    for (int s = 0; s < SIDES; s++) sums[s] += __builtin_fabsf(x[i + s]);
  for (int s = 0; i + s < n; s++) sums[s] += __builtin_fabsf(x[i + s]);
  double mean = 0;
  for (int s = 0; s < SIDES; s++) mean += sums[s];
  mean /= static_cast<double>(n);
  return {static_cast<float>(root / (mean + 1e-5)), static_cast<float>(mean / root), true};
}

// One group; says whether it is finite.
inline bool group(const float* x, float* y, int64_t n, double top, int rule, double root) {
  const Scale found = scaleOf(x, n, top, rule, root);
  if (!found.finite) {
    for (int64_t i = 0; i < n; i++) y[i] = __builtin_nanf("");
    return false;
  }
  const f32v inverse = splat(found.inverse), scale = splat(found.scale);
  const f32v least = splat(static_cast<float>(-top - 1)), most = splat(static_cast<float>(top));
  if (rule == 3 && found.scale == 0) {
    for (int64_t i = 0; i < n; i++) y[i] = 0.0f;
    return true;
  }
  const auto value = [=](f32v v) {
    const f32v q = max(least, min(most, round(rule == 3 ? v / scale : v * inverse)));
    return rule == 1 || rule == 3 ? q * scale : q / inverse;
  };
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) store(y + i, value(load(x + i)));
  const int rest = static_cast<int>(n - i);
  if (rest > 0) store(y + i, value(load(x + i, rest)), rest);
  return true;
}

// All but the `kept` largest |x| become 0 in y.
inline void drop(const float* x, float* y, int64_t n, int64_t kept, uint32_t* keys) {
  for (int64_t i = 0; i < n; i++) keys[i] = orderOf(__builtin_fabsf(x[i]));
  TopK top = topK(keys, n, kept);
  for (int64_t i = 0; i < n; i++) {
    if (keys[i] > top.least) continue;
    if (keys[i] == top.least && top.ties-- > 0) continue;
    y[i] = 0.0f;
  }
}

}  // namespace roundings

void roundRows(Arguments a) {
  using namespace roundings;
  const float* x = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), cols = a.size(), width = a.size(), kept = a.size();
  const double top = a.number();
  const int rule = static_cast<int>(a.size());
  const double root = a.number();
  uint32_t* keys = kept < cols ? static_cast<uint32_t*>(lowbit_scratch(0, lowbit_threads() * cols * 4)) : nullptr;
  parallel((rows + ROWS - 1) / ROWS, [=](int64_t task) {
    const int64_t end = (task + 1) * ROWS < rows ? (task + 1) * ROWS : rows;
    for (int64_t r = task * ROWS; r < end; r++) {
      bool finite = true;
      for (int64_t g = r * cols; g < (r + 1) * cols; g += width)
        finite = group(x + g, y + g, width, top, rule, root) && finite;
      if (keys && finite) drop(x + r * cols, y + r * cols, cols, kept, keys + lowbit_thread() * cols);
    }
  });
}

// Straight through, but not where |x| ≥ limit > 0.
void roundRowsBackward(Arguments a) {
  constexpr int64_t TASK = 16384;
  const float* x = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  const int64_t n = a.size() * a.size();
  for (int i = 0; i < 5; i++) a.number();
  const float limit = static_cast<float>(a.number());
  if (!dx) return;
  parallel((n + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t end = (task + 1) * TASK < n ? (task + 1) * TASK : n;
    for (int64_t i = task * TASK; i < end; i++) dx[i] = limit == 0 || __builtin_fabsf(x[i]) < limit ? dy[i] : 0.0f;
  });
}

}  // namespace lowbit::LOWBIT_BODY
