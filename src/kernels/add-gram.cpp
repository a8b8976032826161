// h += factor·xᵀx: see add-gram.ts. Only blocks on and below the diagonal are
// multiplied; what they give is added on both sides of it, so that a symmetric
// h stays symmetric to the bit.
#include "gemm.h"

namespace lowbit::LOWBIT_BODY {

void addGram(Arguments a) {
  // Columns of a block, and rows of h that a task adds to.
  constexpr int64_t WIDTH = 512, TASK = 16;
  float* h = a.floats();
  const float* x = a.floats();
  const int64_t rows = a.size(), dim = a.size();
  const float factor = static_cast<float>(a.number());
  float* gram = static_cast<float*>(lowbit_scratch(0, dim * product::smaller(dim, WIDTH) * 4));

  for (int64_t from = 0; from < dim; from += WIDTH) {
    const int64_t width = product::smaller(WIDTH, dim - from), height = dim - from;
    gemm(height, width, rows, transpose(plain(x + from, dim)), plain(x + from, dim), gram, width);
    parallel(product::panels(height, TASK), [=](int64_t task) {
      const int64_t begin = task * TASK, end = product::smaller(begin + TASK, height);
      for (int64_t i = begin; i < end; i++)
        for (int64_t j = 0; j < width; j++) h[(from + i) * dim + from + j] += factor * gram[i * width + j];
      // Above the diagonal, for the rows below this block of columns.
      for (int64_t j = 0; j < width; j++)
        for (int64_t i = begin > width ? begin : width; i < end; i++) h[(from + j) * dim + from + i] += factor * gram[i * width + j];
    });
  }
}

}  // namespace lowbit::LOWBIT_BODY
