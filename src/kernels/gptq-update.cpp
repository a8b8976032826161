// w[k] −= Σ_j u[j, k]·errors[j]: a matrix product, see gptq-update.ts.
#include "gemm.h"

namespace lowbit::LOWBIT_BODY {

void gptqUpdate(Arguments a) {
  float* w = a.floats();
  const float* errors = a.floats();
  const float* u = a.floats();
  const int64_t cols = a.size(), rows = a.size(), fromJ = a.size(), toJ = a.size(), fromK = a.size(), toK = a.size();
  gemm(toK - fromK, rows, toJ - fromJ, transpose(plain(u + fromJ * cols + fromK, cols)), plain(errors + fromJ * rows, rows), w + fromK * rows,
       rows, Into::subtract);
}

}  // namespace lowbit::LOWBIT_BODY
