// y = x·σ(u), u = a·x + b·x³: see gelu.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void gelu(Arguments arguments) {
  const float* x = arguments.floats();
  float* y = arguments.floats();
  const int64_t n = arguments.size();
  const f32v a = splat(static_cast<float>(arguments.number())), b = splat(static_cast<float>(arguments.number()));
  eachOf(x, y, n, [=](f32v v) { return v / (splat(1) + exp(splat(0) - v * fma(b, v * v, a))); });
}

void geluBackward(Arguments arguments) {
  const float* x = arguments.floats();
  arguments.floats();
  const float* dy = arguments.floats();
  float* dx = arguments.floats();
  const int64_t n = arguments.size();
  const f32v a = splat(static_cast<float>(arguments.number())), b = splat(static_cast<float>(arguments.number()));
  if (!dx) return;
  const f32v far = splat(10), one = splat(1);
  eachPair(x, dy, dx, n, [=](f32v v, f32v d) {
    f32v t = less(v, splat(0) - far, splat(0) - far, v);
    t = less(far, t, far, t);  // NaN stays
    const f32v s = one / (one + exp(splat(0) - t * fma(b, t * t, a)));
    return d * fma(t * s * (one - s), fma(splat(3) * b, t * t, a), s);
  });
}

}  // namespace lowbit::LOWBIT_BODY
