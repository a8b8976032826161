// y_rc = s_rg·book_kj + o_rg: see look-up.ts.
#include "abi.h"
#include "means.h"

namespace lowbit::LOWBIT_BODY {

namespace lookup {

// Rows are cut into pieces by their number alone, each with sums of its own for the book, which are added up in order.
constexpr int64_t PIECES = 16;

}  // namespace lookup

void lookUp(Arguments a) {
  const float* book = a.floats();
  const int32_t* codes = a.integers();
  const float* s = a.floats();
  const float* o = a.floats();
  float* y = a.floats();
  const int64_t rows = a.size(), vectors = a.size(), entries = a.size(), d = a.size(), groups = a.size();
  const int64_t cols = vectors * d, width = groups ? cols / groups : cols;
  eachRow(rows, cols, [=](int64_t r) {
    float* out = y + r * cols;
    for (int64_t v = 0; v < vectors; v++) {
      const int64_t k = codes[r * vectors + v];
      const bool known = k >= 0 && k < entries;
      for (int64_t j = 0; j < d; j++) out[v * d + j] = known ? book[k * d + j] : __builtin_nanf("");
    }
    for (int64_t g = 0; g < groups; g++) {
      const float scale = s[r * groups + g], offset = o[r * groups + g];
      for (int64_t c = g * width; c < (g + 1) * width; c++) out[c] = scale * out[c] + offset;
    }
  });
}

void lookUpBackward(Arguments a) {
  const float* book = a.floats();
  const int32_t* codes = a.integers();
  const float* s = a.floats();
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dbook = a.floats();
  a.floats();
  float* ds = a.floats();
  float* dO = a.floats();
  const int64_t rows = a.size(), vectors = a.size(), entries = a.size(), d = a.size(), groups = a.size();
  const int64_t cols = vectors * d, width = groups ? cols / groups : cols;
  if (ds || dO)
    eachRow(rows, cols, [=](int64_t r) {
      for (int64_t g = 0; g < groups; g++) {
        double scale = 0, offset = 0;
        for (int64_t c = g * width; c < (g + 1) * width; c++) {
          const int64_t k = codes[r * vectors + c / d];
          if (k < 0 || k >= entries) continue;
          const double one = dy[r * cols + c];
          scale += one * book[k * d + c % d];
          offset += one;
        }
        if (ds) ds[r * groups + g] = static_cast<float>(scale);
        if (dO) dO[r * groups + g] = static_cast<float>(offset);
      }
    });
  if (!dbook) return;
  const int64_t size = entries * d, each = (rows + lookup::PIECES - 1) / lookup::PIECES;
  double* parts = static_cast<double*>(lowbit_scratch(0, 8 * size * lookup::PIECES));
  parallel(lookup::PIECES, [=](int64_t piece) {
    double* own = parts + piece * size;
    for (int64_t i = 0; i < size; i++) own[i] = 0;
    const int64_t end = (piece + 1) * each < rows ? (piece + 1) * each : rows;
    for (int64_t r = piece * each; r < end; r++)
      for (int64_t v = 0; v < vectors; v++) {
        const int64_t k = codes[r * vectors + v];
        if (k < 0 || k >= entries) continue;
        for (int64_t j = 0; j < d; j++) {
          const int64_t c = v * d + j;
          own[k * d + j] += static_cast<double>(s[r * groups + c / width]) * dy[r * cols + c];
        }
      }
  });
  for (int64_t i = 0; i < size; i++) {
    double sum = 0;
    for (int64_t piece = 0; piece < lookup::PIECES; piece++) sum += parts[piece * size + i];
    dbook[i] = static_cast<float>(sum);
  }
}

}  // namespace lowbit::LOWBIT_BODY
