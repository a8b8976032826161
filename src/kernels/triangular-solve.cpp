// B ← L⁻¹·B or L⁻ᵀ·B: see triangular-solve.ts. In blocks of rows: a product
// takes off what is solved already, then the block on the diagonal is solved in
// 64 bits, all columns side by side.
#include "gemm.h"

namespace lowbit::LOWBIT_BODY {
namespace substitution {

constexpr int64_t BLOCK = 64, STRIP = 32;

// Rows of b (size, columns), m apart, with the block of L, n apart.
inline void solveBlock(const float* l, int64_t n, float* b, int64_t m, int size, int columns, bool transposed) {
  double x[BLOCK][STRIP];
  for (int step = 0; step < size; step++) {
    const int i = transposed ? size - 1 - step : step;
    for (int c = 0; c < columns; c++) x[i][c] = b[i * m + c];
    for (int before = 0; before < step; before++) {
      const int k = transposed ? size - 1 - before : before;
      const double factor = transposed ? l[k * n + i] : l[i * n + k];
      for (int c = 0; c < columns; c++) x[i][c] -= factor * x[k][c];
    }
    const double diagonal = l[i * n + i];
    for (int c = 0; c < columns; c++) {
      x[i][c] /= diagonal;
      b[i * m + c] = static_cast<float>(x[i][c]);
    }
  }
}

}  // namespace substitution

void triangularSolve(Arguments a) {
  using namespace substitution;
  const float* l = a.floats();
  float* b = a.floats();
  const int64_t n = a.size(), m = a.size();
  const bool transposed = a.number() != 0;
  const int64_t from = a.size(), to = a.size();
  if (to <= from) return;
  b += from;
  const int64_t columns = to - from;

  for (int64_t done = 0; done < n; done += BLOCK) {
    const int64_t size = product::smaller(BLOCK, n - done);
    const int64_t first = transposed ? n - done - size : done;
    const int64_t solved = transposed ? first + size : 0;
    const Operand factors = transposed ? transpose(plain(l + solved * n + first, n)) : plain(l + first * n, n);
    gemm(size, columns, done, factors, plain(b + solved * m, m), b + first * m, m, Into::subtract);
    parallel(product::panels(columns, STRIP), [=](int64_t strip) {
      const int width = static_cast<int>(product::smaller(STRIP, columns - strip * STRIP));
      solveBlock(l + first * n + first, n, b + first * m + strip * STRIP, m, static_cast<int>(size), width, transposed);
    });
  }
}

}  // namespace lowbit::LOWBIT_BODY
