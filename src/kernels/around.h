// Images whose places look at the k × k places around them: see neighbourhoods.ts and neighbour-sums.ts.
#pragma once
#include "abi.h"

namespace lowbit::LOWBIT_BODY::around {

struct Sizes {
  int64_t images, height, width, channels, kernel;
  explicit Sizes(Arguments& a) : images(a.size()), height(a.size()), width(a.size()), channels(a.size()), kernel(a.size()) {}
  int64_t middle() const { return kernel / 2; }
  int64_t line() const { return width * channels; }
  // Floats of a place that has one for each place around it.
  int64_t each() const { return kernel * kernel * channels; }
};

}  // namespace lowbit::LOWBIT_BODY::around
