// Channels spread out in space, or gathered again: see pixel-shuffle.ts.
#include "abi.h"
#include "threads.h"

namespace lowbit::LOWBIT_BODY {

namespace shuffle {

struct Sizes {
  int64_t images, height, width, channels, stride, back;
  explicit Sizes(Arguments& a)
      : images(a.size()), height(a.size()), width(a.size()), channels(a.size()), stride(a.size()), back(a.size()) {}
};

// A run of stride·channels floats lies side by side in both.
inline void move(const Sizes& s, const float* x, float* y, bool back) {
  const int64_t run = s.stride * s.channels, places = s.width / s.stride;
  parallel(s.images * s.height, [=](int64_t line) {
    const int64_t row = line / s.stride, i = line % s.stride;
    for (int64_t c = 0; c < places; c++) {
      const int64_t small = ((row * places + c) * s.stride + i) * run, large = (line * places + c) * run;
      const float* from = x + (back ? large : small);
      float* to = y + (back ? small : large);
      for (int64_t l = 0; l < run; l++) to[l] = from[l];
    }
  });
}

}  // namespace shuffle

void pixelShuffle(Arguments a) {
  const float* x = a.floats();
  float* y = a.floats();
  const shuffle::Sizes s(a);
  shuffle::move(s, x, y, s.back != 0);
}

void pixelShuffleBackward(Arguments a) {
  a.floats();
  a.floats();
  const float* dy = a.floats();
  float* dx = a.floats();
  const shuffle::Sizes s(a);
  if (dx) shuffle::move(s, dy, dx, s.back == 0);
}

}  // namespace lowbit::LOWBIT_BODY
