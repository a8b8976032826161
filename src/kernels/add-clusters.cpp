// Sums and masses of the vectors of each entry: see add-clusters.ts.
#include "abi.h"
#include "simd.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace clusters {

// Vectors are cut into pieces, each with sums of its own, which are added up in order: as many as this much memory holds.
constexpr int64_t MOST_PIECES = 64, LEAST_VECTORS = 8192, MOST_SUMS = 1 << 22;

inline int64_t pieces(int64_t n, int64_t sums) {
  const int64_t room = MOST_SUMS / (sums + 1) + 1, wanted = n / LEAST_VECTORS + 1;
  const int64_t most = room < MOST_PIECES ? room : MOST_PIECES;
  return wanted < most ? wanted : most;
}

}  // namespace clusters

void addClusters(Arguments a) {
  float* sums = a.floats();
  float* masses = a.floats();
  const float* x = a.floats();
  const int32_t* codes = a.integers();
  const float* w = a.floats();
  const int64_t n = a.size(), d = a.size(), entries = a.size(), m = a.size();
  const int64_t size = 2 * entries * d, pieces = clusters::pieces(n, size), each = (n + pieces - 1) / pieces;
  double* parts = static_cast<double*>(lowbit_scratch(0, 8 * size * pieces));
  parallel(pieces, [=](int64_t piece) {
    double* own = parts + piece * size;
    for (int64_t i = 0; i < size; i++) own[i] = 0;
    const int64_t end = (piece + 1) * each < n ? (piece + 1) * each : n;
    for (int64_t i = piece * each; i < end; i++) {
      const int64_t k = codes[i];
      if (k < 0 || k >= entries) continue;
      const float *vector = x + i * d, *weights = w + i % m * d;
      double* at = own + 2 * k * d;
      for (int64_t j = 0; j < d; j++) {
        at[j] += static_cast<double>(weights[j]) * vector[j];
        at[d + j] += weights[j];
      }
    }
  });
  for (int64_t k = 0; k < entries; k++)
    for (int64_t j = 0; j < d; j++) {
      double sum = 0, mass = 0;
      for (int64_t piece = 0; piece < pieces; piece++) {
        const double* at = parts + piece * size + 2 * k * d;
        sum += at[j];
        mass += at[d + j];
      }
      sums[k * d + j] = static_cast<float>(sum);
      masses[k * d + j] = static_cast<float>(mass);
    }
}

}  // namespace lowbit::LOWBIT_BODY
