// y = α·sign(w − μ), α = f16(mean|w|), μ = mean w: see binary.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void binary(Arguments a) {
  const float* w = a.floats();
  float *y = a.floats(), *scale = a.floats();
  const int64_t n = a.size();
  const float middle = static_cast<float>(meanValue(w, n));
  const float alpha = half(nearestHalf(static_cast<float>(meanMagnitude(w, n))));
  scale[0] = alpha;
  eachOf(w, y, n, [=](f32v x) { return less(x, splat(middle), splat(-alpha), splat(alpha)); });
}

void binaryBackward(Arguments a) {
  a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dw = a.floats();
  straightThrough(dy, dw, a.size());
}

}  // namespace lowbit::LOWBIT_BODY
