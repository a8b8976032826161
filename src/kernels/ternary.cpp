// y = γ·round(clip(w/γ, −1, 1)), γ = f16(ε + mean|w|): see ternary.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void ternary(Arguments a) {
  const float* w = a.floats();
  float *y = a.floats(), *scale = a.floats();
  const int64_t n = a.size();
  const double epsilon = a.number();
  const float gamma = half(nearestHalf(static_cast<float>(epsilon + meanMagnitude(w, n))));
  scale[0] = gamma;
  // The second operand survives where one is NaN.
  eachOf(w, y, n, [=](f32v x) { return splat(gamma) * round(max(splat(-1), min(splat(1), x / splat(gamma)))); });
}

void ternaryBackward(Arguments a) {
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  straightThrough(dy, dw, a.size());
}

}  // namespace lowbit::LOWBIT_BODY
