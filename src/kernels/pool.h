// Who may run kernels: napi.cpp holds a turn for the time of one.
#pragma once

namespace lowbit {

class PoolTurn {
 public:
  // Waits until no other environment runs a kernel, and has `threads` threads ready.
  explicit PoolTurn(int threads);
  ~PoolTurn();
};

}  // namespace lowbit
