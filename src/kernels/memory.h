// Memory for tensors, aligned to 64 bytes. Freed blocks are kept by size, so
// that a training step reuses the last step's buffers instead of paying for
// fresh pages.
#pragma once
#include <stdint.h>

namespace lowbit {

// Null when there is no memory left.
void* allocate(int64_t bytes);
// `bytes` as given to allocate().
void release(void* address, int64_t bytes);
// Of tensors (scratch not counted), rounded up to the sizes of blocks.
int64_t bytes_in_use();
// The most that this was since the last call.
int64_t take_peak_bytes();

// What the blocks are cut from; memory-native.cpp and memory-wasm.cpp.
void* take_pages(int64_t bytes);
void give_pages(void* address, int64_t bytes);

// Leaves the current kernel call: scratch was needed and there is none left.
// Does not return.
void out_of_memory(int64_t bytes);

// Only one thread is inside allocate() or release() at a time.
class MemoryLock {
 public:
  MemoryLock();
  ~MemoryLock();
};

}  // namespace lowbit
