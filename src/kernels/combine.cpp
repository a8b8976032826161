// y = α·a + β·b: see combine.ts.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void combine(Arguments arguments) {
  const float* a = arguments.floats();
  const float* b = arguments.floats();
  float* y = arguments.floats();
  const int64_t n = arguments.size();
  const float alpha = static_cast<float>(arguments.number()), beta = static_cast<float>(arguments.number());
  eachPair(a, b, y, n, [=](f32v x, f32v z) { return splat(alpha) * x + splat(beta) * z; });
}

void combineBackward(Arguments arguments) {
  for (int skip = 0; skip < 3; skip++) arguments.floats();
  const float* dy = arguments.floats();
  float* gradients[2] = {arguments.floats(), arguments.floats()};
  const int64_t n = arguments.size();
  for (float* gradient : gradients) {
    const float factor = static_cast<float>(arguments.number());
    if (gradient) eachOf(dy, gradient, n, [=](f32v d) { return splat(factor) * d; });
  }
}

}  // namespace lowbit::LOWBIT_BODY
