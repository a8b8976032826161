// Pages of a WebAssembly memory, which grows and never shrinks: blocks that
// come back are joined with their neighbours and cut anew, and only then the
// memory grows. Also the functions of the C library that compilers call.
#include "memory.h"

#include <stddef.h>

extern "C" {

// Set by the linker: the end of the static data. Without `extern` it would be a variable of our own, before others.
extern unsigned char __heap_base;

// Each builtin is one instruction, memory.copy or memory.fill, not a call of the function that it stands in.
void* memcpy(void* to, const void* from, size_t bytes) { return __builtin_memmove(to, from, bytes); }
void* memmove(void* to, const void* from, size_t bytes) { return __builtin_memmove(to, from, bytes); }
void* memset(void* to, int value, size_t bytes) { return __builtin_memset(to, value, bytes); }
}

namespace lowbit {

namespace {

constexpr uint64_t PAGE = 65536;
constexpr uint64_t MOST_PAGES = 65536;

// Free regions, in the order of their addresses; each begins with this.
struct Region {
  uint64_t bytes;
  Region* next;
};
Region* regions = nullptr;
uint64_t end = 0;  // first byte never handed out

uint64_t address(const Region* r) { return reinterpret_cast<uintptr_t>(r); }

void* from_regions(uint64_t bytes) {
  for (Region** at = &regions; *at; at = &(*at)->next) {
    Region* r = *at;
    if (r->bytes < bytes) continue;
    if (r->bytes == bytes) {
      *at = r->next;
    } else {
      Region* rest = reinterpret_cast<Region*>(static_cast<uintptr_t>(address(r) + bytes));
      *rest = {r->bytes - bytes, r->next};
      *at = rest;
    }
    return r;
  }
  return nullptr;
}

}  // namespace

// One thread alone allocates: workers only take tasks.
MemoryLock::MemoryLock() {}
MemoryLock::~MemoryLock() {}

void* take_pages(int64_t wanted) {
  const uint64_t bytes = (static_cast<uint64_t>(wanted) + 63) / 64 * 64;
  if (void* found = from_regions(bytes)) return found;
  if (end == 0) end = (reinterpret_cast<uintptr_t>(&__heap_base) + 63) / 64 * 64;
  const uint64_t stop = end + bytes;
  const uint64_t held = __builtin_wasm_memory_size(0);
  const uint64_t needed = (stop + PAGE - 1) / PAGE;
  // The last page is never used, so that an address just past a block does not become 0.
  if (needed >= MOST_PAGES) return nullptr;
  if (needed > held) {
    // An eighth more than needed where the limit allows it: each growth makes new views in JavaScript.
    const uint64_t ahead = needed + needed / 8 < MOST_PAGES ? needed + needed / 8 : MOST_PAGES;
    if (__builtin_wasm_memory_grow(0, ahead - held) == static_cast<size_t>(-1) &&
        __builtin_wasm_memory_grow(0, needed - held) == static_cast<size_t>(-1)) {
      return nullptr;
    }
  }
  void* block = reinterpret_cast<void*>(static_cast<uintptr_t>(end));
  end = stop;
  return block;
}

void give_pages(void* block, int64_t given) {
  const uint64_t bytes = (static_cast<uint64_t>(given) + 63) / 64 * 64;
  Region* r = static_cast<Region*>(block);
  Region* before = nullptr;
  Region* after = regions;
  while (after && after < r) {
    before = after;
    after = after->next;
  }
  *r = {bytes, after};
  if (before) before->next = r;
  else regions = r;
  if (after && address(r) + r->bytes == address(after)) *r = {r->bytes + after->bytes, after->next};
  if (before && address(before) + before->bytes == address(r)) *before = {before->bytes + r->bytes, r->next};
}

}  // namespace lowbit
