// into = (add ? into : 0) + Σt²: see squared-norm.ts.
#include "abi.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

// Sums of 64 bits, one per chunk, added in the order of the chunks.
void squaredNorm(Arguments a) {
  constexpr int64_t CHUNK = 16384;
  constexpr int SIDES = 16;  // sums side by side, for the compiler's vectors
  float* into = a.floats();
  const float* t = a.floats();
  const int64_t n = a.size();
  const bool add = a.number() != 0;
  const int64_t chunks = (n + CHUNK - 1) / CHUNK;
  double* sums = static_cast<double*>(lowbit_scratch(0, chunks * 8));
  parallel(chunks, [=](int64_t chunk) {
    double parts[SIDES] = {};
    int64_t i = chunk * CHUNK;
    const int64_t end = i + CHUNK < n ? i + CHUNK : n;
    for (; i + SIDES <= end; i += SIDES)
      for (int s = 0; s < SIDES; s++) parts[s] += static_cast<double>(t[i + s]) * t[i + s];
    for (; i < end; i++) parts[0] += static_cast<double>(t[i]) * t[i];
    double sum = 0;
    for (int s = 0; s < SIDES; s++) sum += parts[s];
    sums[chunk] = sum;
  });
  double total = add ? into[0] : 0;
  for (int64_t chunk = 0; chunk < chunks; chunk++) total += sums[chunk];
  into[0] = static_cast<float>(total);
}

}  // namespace lowbit::LOWBIT_BODY
