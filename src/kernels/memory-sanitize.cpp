// In place of memory.cpp under sanitizers (scripts/sanitize.mjs): each tensor and each scratch is a block of the
// system's own, of exactly the bytes asked for, so that AddressSanitizer's red zones stand at both of its ends. Fresh
// blocks hold the sanitizer's own pattern: what is read before it is written shows in the results.
#include <stdlib.h>

#include <atomic>

#include "memory.h"
#include "threads.h"

namespace lowbit {

namespace {

std::atomic<int64_t> in_use{0};
std::atomic<int64_t> peak{0};

void* block(int64_t bytes) {
  void* address = nullptr;
  return posix_memalign(&address, 64, static_cast<size_t>(bytes)) == 0 ? address : nullptr;
}

// memory.cpp rounds sizes up before it counts them; here a byte is a byte.
int64_t counted(int64_t bytes) { return bytes < 1 ? 1 : bytes; }

void* scratch[8];

}  // namespace

void* allocate(int64_t bytes) {
  if (bytes < 0 || bytes > int64_t{1} << 46) return nullptr;
  void* address = block(counted(bytes));
  if (!address) return nullptr;
  const int64_t now = in_use += counted(bytes);
  for (int64_t most = peak; most < now && !peak.compare_exchange_weak(most, now);) {
  }
  return address;
}

void release(void* address, int64_t bytes) {
  if (!address) return;
  in_use -= counted(bytes);
  free(address);
}

int64_t bytes_in_use() { return in_use; }

int64_t take_peak_bytes() { return peak.exchange(in_use); }

extern "C" void* lowbit_scratch(int slot, int64_t bytes) {
  free(scratch[slot]);  // also when it is large enough: the end is where this call's bytes end
  scratch[slot] = block(counted(bytes));
  if (!scratch[slot]) out_of_memory(bytes);
  return scratch[slot];
}

}  // namespace lowbit
