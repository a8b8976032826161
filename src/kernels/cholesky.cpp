// A = L·Lᵀ: see cholesky.ts. Right-looking, in blocks of columns: factor the
// block on the diagonal, solve for the rows below it, both in 64 bits, and take
// L₂₁·L₂₁ᵀ off what is to the right, where nearly all the work is.
//
// Golub & Van Loan, Matrix Computations, 2013, section 4.2.6.
#include "gemm.h"

namespace lowbit::LOWBIT_BODY {
namespace factorization {

constexpr int BLOCK = 64;      // columns
constexpr int64_t STRIP = 256;  // columns of the trailing matrix in one product: half of those on its diagonal are wasted
constexpr int64_t TASK = 8;     // rows below the diagonal block

// Column j of L in `columns` + j·BLOCK, as 64-bit numbers, from a (size, size) with rows n apart. Gives the first row
// whose pivot is not positive, or −1.
inline int diagonalBlock(float* a, int64_t n, int size, double* columns, double* pivot) {
  for (int j = 0; j < size; j++)
    for (int i = j; i < size; i++) columns[j * BLOCK + i] = a[i * n + j];
  for (int j = 0; j < size; j++) {
    double* column = columns + j * BLOCK;
    *pivot = column[j];
    if (!(column[j] > 0)) return j;
    const double diagonal = __builtin_sqrt(column[j]);
    column[j] = diagonal;
    for (int i = j + 1; i < size; i++) column[i] /= diagonal;
    for (int k = j + 1; k < size; k++) {
      const double factor = column[k];
      for (int i = k; i < size; i++) columns[k * BLOCK + i] -= factor * column[i];
    }
    for (int i = j; i < size; i++) a[i * n + j] = static_cast<float>(column[i]);
  }
  return -1;
}

// One row below the block: x ← x·L⁻ᵀ.
inline void rowBelow(float* a, int size, const double* columns) {
  double x[BLOCK];
  for (int j = 0; j < size; j++) x[j] = a[j];
  for (int j = 0; j < size; j++) {
    const double* column = columns + j * BLOCK;
    x[j] /= column[j];
    for (int k = j + 1; k < size; k++) x[k] -= x[j] * column[k];
  }
  for (int j = 0; j < size; j++) a[j] = static_cast<float>(x[j]);
}

}  // namespace factorization

void cholesky(Arguments arguments) {
  using namespace factorization;
  float* a = arguments.floats();
  float* status = arguments.floats();
  const int64_t n = arguments.size(), from = arguments.size(), to = arguments.size();
  if (from == 0) status[0] = status[1] = 0;
  if (status[0] != 0) return;
  double* columns = static_cast<double*>(lowbit_scratch(0, BLOCK * BLOCK * 8));

  for (int64_t first = from; first < to; first += BLOCK) {
    const int size = static_cast<int>(product::smaller(BLOCK, to - first));
    double pivot = 0;
    const int failed = diagonalBlock(a + first * n + first, n, size, columns, &pivot);
    if (failed >= 0) {
      status[0] = static_cast<float>(1 + first + failed);
      status[1] = static_cast<float>(pivot);
      return;
    }
    const int64_t below = first + size;
    parallel(product::panels(n - below, TASK), [=](int64_t task) {
      for (int64_t i = below + task * TASK; i < n && i < below + (task + 1) * TASK; i++) rowBelow(a + i * n + first, size, columns);
    });
    for (int64_t column = below; column < n; column += STRIP) {
      const Operand l = plain(a + column * n + first, n);
      gemm(n - column, product::smaller(STRIP, n - column), size, l, transpose(l), a + column * n + column, n, Into::subtract);
    }
  }

  if (to == n) {
    parallel(product::panels(n, TASK), [=](int64_t task) {
      for (int64_t i = task * TASK; i < n && i < (task + 1) * TASK; i++)
        for (int64_t j = i + 1; j < n; j++) a[i * n + j] = 0.0f;
    });
  }
}

}  // namespace lowbit::LOWBIT_BODY
