// Rows of a table, by id: see embedding.ts.
#include "abi.h"
#include "panels.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

void embedding(Arguments a) {
  constexpr int64_t TASK = 16;  // tokens
  const WeightView table = a.weight();
  const int32_t* ids = a.integers();
  float* y = a.floats();
  const int64_t tokens = a.size(), dim = a.size(), rows = a.size();
  parallel((tokens + TASK - 1) / TASK, [=](int64_t task) {
    const int64_t end = (task + 1) * TASK < tokens ? (task + 1) * TASK : tokens;
    for (int64_t t = task * TASK; t < end; t++) {
      float* row = y + t * dim;
      const int64_t id = ids[t];
      if (id < 0 || id >= rows) {
        for (int64_t i = 0; i < dim; i++) row[i] = __builtin_nanf("");
      } else if (table.floats) {
        for (int64_t i = 0; i < dim; i++) row[i] = table.floats[id * dim + i];
      } else {
        decodeWeights(*table.packed, id, 0, dim, row);
      }
    }
  });
}

// Tokens that share an id are added in their order; a task owns a strip of columns.
void embeddingBackward(Arguments a) {
  constexpr int64_t STRIP = 64;
  a.weight();
  const int32_t* ids = a.integers();
  a.floats();
  const float* dy = a.floats();
  float* dTable = a.floats();
  a.floats();
  const int64_t tokens = a.size(), dim = a.size(), rows = a.size();
  if (!dTable) return;
  parallel((dim + STRIP - 1) / STRIP, [=](int64_t task) {
    const int64_t first = task * STRIP, end = first + STRIP < dim ? first + STRIP : dim;
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = first; i < end; i++) dTable[r * dim + i] = 0;
    for (int64_t t = 0; t < tokens; t++) {
      const int64_t id = ids[t];
      if (id < 0 || id >= rows) continue;
      for (int64_t i = first; i < end; i++) dTable[id * dim + i] += dy[t * dim + i];
    }
  });
}

}  // namespace lowbit::LOWBIT_BODY
