// Rows at … at+tokens−1 of a cache: see cache-append.ts.
#include "abi.h"

namespace lowbit::LOWBIT_BODY {

void cacheAppend(Arguments a) {
  float* cache = a.floats();
  const float* rows = a.floats();
  const int64_t tokens = a.size(), dim = a.size(), at = a.size();
  for (int64_t i = 0; i < tokens * dim; i++) cache[at * dim + i] = rows[i];
}

}  // namespace lowbit::LOWBIT_BODY
