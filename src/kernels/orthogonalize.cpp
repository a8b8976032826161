// X ← a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X, some times: see orthogonalize.ts. The
// smaller of X·Xᵀ and Xᵀ·X is made, and a·I + b·A + c·A² of it multiplies X
// from its side.
#include "gemm.h"

namespace lowbit::LOWBIT_BODY {

void orthogonalize(Arguments arguments) {
  constexpr int64_t TASK = 16384;
  constexpr double a = 3.4445, b = -4.775, c = 2.0315;
  float* x = arguments.floats();
  const int64_t rows = arguments.size(), cols = arguments.size(), steps = arguments.size();
  const int64_t n = rows * cols, tasks = product::panels(n, TASK);
  const bool wide = rows <= cols;
  const int64_t side = wide ? rows : cols;

  double* sums = static_cast<double*>(lowbit_scratch(3, tasks * 8));
  parallel(tasks, [=](int64_t task) {
    double sum = 0;
    for (int64_t i = task * TASK; i < n && i < (task + 1) * TASK; i++) sum += static_cast<double>(x[i]) * x[i];
    sums[task] = sum;
  });
  double square = 0;
  for (int64_t task = 0; task < tasks; task++) square += sums[task];
  if (!(square > 0)) return;
  const double inverse = 1 / __builtin_sqrt(square);
  parallel(tasks, [=](int64_t task) {
    for (int64_t i = task * TASK; i < n && i < (task + 1) * TASK; i++) x[i] = static_cast<float>(x[i] * inverse);
  });

  float* from = x;
  float* to = static_cast<float*>(lowbit_scratch(0, n * 4));
  float* A = static_cast<float*>(lowbit_scratch(1, side * side * 4));
  float* B = static_cast<float*>(lowbit_scratch(2, side * side * 4));
  for (int64_t step = 0; step < steps; step++) {
    const Operand X = plain(from, cols);
    gemm(side, side, wide ? cols : rows, wide ? X : transpose(X), wide ? transpose(X) : X, A, side);
    gemm(side, side, side, plain(A, side), plain(A, side), B, side);
    parallel(product::panels(side * side, TASK), [=](int64_t task) {
      const int64_t end = product::smaller(side * side, (task + 1) * TASK);
      for (int64_t i = task * TASK; i < end; i++) B[i] = static_cast<float>(b) * A[i] + static_cast<float>(c) * B[i];
    });
    for (int64_t i = 0; i < side; i++) B[i * (side + 1)] += static_cast<float>(a);
    if (wide) gemm(rows, cols, rows, plain(B, side), X, to, cols);
    else gemm(rows, cols, cols, X, plain(B, side), to, cols);
    float* done = from;
    from = to;
    to = done;
  }
  if (from != x)
    parallel(tasks, [=](int64_t task) {
      for (int64_t i = task * TASK; i < n && i < (task + 1) * TASK; i++) x[i] = from[i];
    });
}

}  // namespace lowbit::LOWBIT_BODY
