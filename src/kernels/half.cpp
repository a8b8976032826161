// y = f16(x), dx = dy: see half.ts. Beside it stands half() of simd.h, which reads the bits of a 16-bit float.
#include "abi.h"
#include "means.h"
#include "simd.h"

namespace lowbit::LOWBIT_BODY {

void half(Arguments a) {
  const float* x = a.floats();
  float* y = a.floats();
  const int64_t n = a.size();
  parallel(chunksOf(n), [=](int64_t chunk) {
    const int64_t end = (chunk + 1) * MEANS_CHUNK < n ? (chunk + 1) * MEANS_CHUNK : n;
    for (int64_t i = chunk * MEANS_CHUNK; i < end; i++) y[i] = half(nearestHalf(x[i]));
  });
}

void halfBackward(Arguments a) {
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  straightThrough(dy, dx, a.size());
}

}  // namespace lowbit::LOWBIT_BODY
