// The operations of this folder by name: one stem, one .ts and one .cpp. Every
// body makes a table of them in this order, forward and backward side by side,
// and TypeScript finds them by the names (`linear`, `linearBackward`).
#pragma once
#include "abi.h"

#define LOWBIT_KERNELS(each) \
  each(add) \
  each(embedding) \
  each(linear) \
  each(rmsNorm) \
  each(layerNorm) \
  each(rope) \
  each(attention) \
  each(swiglu) \
  each(relu2glu) \
  each(roundRows) \
  each(softLoss) \
  each(matchStates) \
  each(crossEntropy) \
  each(ternary) \
  each(binary) \
  each(sign) \
  each(half) \
  each(scaleRows) \
  each(scaleColumns) \
  each(join) \
  each(lookUp) \
  each(snap) \
  each(pickColumns) \
  each(hadamard) \
  each(addRow) \
  each(combine) \
  each(learnedStep) \
  each(nested) \
  each(neighbourhoods) \
  each(neighbourSums) \
  each(pixelShuffle) \
  each(gelu)

#define LOWBIT_PROCEDURES(each) \
  each(fill) \
  each(accumulate) \
  each(cacheAppend) \
  each(squaredNorm) \
  each(adamw) \
  each(adamw8) \
  each(adamw4) \
  each(splitBf16) \
  each(collage) \
  each(momentum) \
  each(orthogonalize) \
  each(descend) \
  each(addGram) \
  each(cholesky) \
  each(triangularSolve) \
  each(svd) \
  each(gptqUpdate) \
  each(nearestEntries) \
  each(beamEntries) \
  each(nearestE8p) \
  each(addClusters) \
  each(viterbi)

// What backends do with weights before operations read them; no operation of a backend's own.
#define LOWBIT_PREPARATIONS(each) \
  each(arrangedBytes) \
  each(arrange)

namespace lowbit {

struct Entry {
  const char* name;
  KernelFunction run;
};

struct Table {
  const Entry* entries;
  int count;
  // Names of stems, by the numbers that descriptors of matrices carry.
  const char* const* formats;
  int formatCount;
  // Whether this processor lets the body multiply in BF16: gemm-bf16.h.
  bool bf16;
};

namespace avx512 { Table table(); }
namespace avx2 { Table table(); }
namespace neon { Table table(); }
namespace portable { Table table(); }
namespace simd { Table table(); }

}  // namespace lowbit
