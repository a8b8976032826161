// y = ±1, dw = dy or dy·(1.001 − tanh²w): see sign.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void sign(Arguments a) {
  const float* w = a.floats();
  float* y = a.floats();
  eachOf(w, y, a.size(), [](f32v x) { return less(x, splat(0.0f), splat(-1.0f), splat(1.0f)) + (x - x); });
}

void signBackward(Arguments a) {
  const float* w = a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  const int64_t n = a.size();
  if (a.size() == 0) return straightThrough(dy, dw, n);
  if (!dw) return;
  eachPair(w, dy, dw, n, [](f32v x, f32v d) {
    const f32v t = splat(1.0f) - splat(2.0f) / (exp(x + x) + splat(1.0f));
    return d * (splat(1.001f) - t * t);
  });
}

}  // namespace lowbit::LOWBIT_BODY
