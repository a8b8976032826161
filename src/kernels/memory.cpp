// Free lists by size over pages of the system.
#include "memory.h"

#include "threads.h"

namespace lowbit {

namespace {

// Sizes of blocks: multiples of 64 to 1024, then sixteen to each power of two (6 % at most is lost).
constexpr int SMALL = 16;
constexpr int CLASSES = SMALL + 16 * 40;
// Blocks below this are cut from chunks, and stay with us.
constexpr int64_t CHUNK = int64_t{1} << 18;
constexpr int64_t LARGE = int64_t{1} << 16;
// Freed blocks are kept up to the size of what is in use, and at least this.
constexpr int64_t KEEP = int64_t{1} << 27;

struct Free {
  Free* next;
};

Free* lists[CLASSES];
char* chunk = nullptr;
int64_t chunk_left = 0;
int64_t in_use = 0;
int64_t peak = 0;
int64_t kept = 0;

int class_of(int64_t bytes) {
  const int64_t lines = bytes <= 64 ? 1 : (bytes + 63) / 64;
  if (lines <= SMALL) return static_cast<int>(lines) - 1;
  int power = 4;  // 2^power < lines ≤ 2^(power+1)
  while ((int64_t{2} << power) < lines) power++;
  const int64_t step = int64_t{1} << (power - 4);
  const int64_t over = (lines - (int64_t{1} << power) + step - 1) / step;  // 1 … 16
  return SMALL + (power - 4) * 16 + static_cast<int>(over) - 1;
}

int64_t size_of(int size_class) {
  if (size_class < SMALL) return int64_t{64} * (size_class + 1);
  const int power = 4 + (size_class - SMALL) / 16;
  const int64_t over = (size_class - SMALL) % 16 + 1;
  return ((int64_t{1} << power) + over * (int64_t{1} << (power - 4))) * 64;
}

// Gives large free blocks back.
void trim() {
  for (int c = CLASSES - 1; c >= 0 && size_of(c) >= LARGE; c--) {
    const int64_t size = size_of(c);
    while (Free* block = lists[c]) {
      lists[c] = block->next;
      kept -= size;
      give_pages(block, size);
    }
  }
}

void* cut(int64_t size) {
  if (chunk_left < size) {
    // What is left of the old chunk is less than LARGE and is lost once for CHUNK bytes of blocks.
    void* fresh = take_pages(CHUNK);
    if (!fresh) return nullptr;
    chunk = static_cast<char*>(fresh);
    chunk_left = CHUNK;
  }
  void* block = chunk;
  chunk += size;
  chunk_left -= size;
  return block;
}

struct Scratch {
  void* address;
  int64_t bytes;
};
Scratch scratch[8];

}  // namespace

void* allocate(int64_t bytes) {
  // Beyond any machine; also keeps the sizes below from overflowing.
  if (bytes < 0 || bytes > int64_t{1} << 46) return nullptr;
  MemoryLock lock;
  const int size_class = class_of(bytes);
  const int64_t size = size_of(size_class);
  void* block = lists[size_class];
  if (block) {
    lists[size_class] = lists[size_class]->next;
    kept -= size;
  } else if (size < LARGE) {
    block = cut(size);
    if (!block && kept > 0) {
      trim();
      block = cut(size);
    }
  } else {
    if (kept > KEEP && kept > in_use) trim();
    block = take_pages(size);
    if (!block && kept > 0) {
      trim();
      block = take_pages(size);
    }
  }
  if (block) in_use += size;
  if (in_use > peak) peak = in_use;
  return block;
}

void release(void* address, int64_t bytes) {
  if (!address) return;
  MemoryLock lock;
  const int size_class = class_of(bytes);
  Free* block = static_cast<Free*>(address);
  block->next = lists[size_class];
  lists[size_class] = block;
  in_use -= size_of(size_class);
  kept += size_of(size_class);
}

int64_t bytes_in_use() {
  MemoryLock lock;
  return in_use;
}

int64_t take_peak_bytes() {
  MemoryLock lock;
  const int64_t most = peak;
  peak = in_use;
  return most;
}

extern "C" void* lowbit_scratch(int slot, int64_t bytes) {
  Scratch& s = scratch[slot];
  if (s.bytes >= bytes) return s.address;
  // Half as much again, so that sizes that grow step by step do not move every time.
  int64_t wanted = (bytes + bytes / 2 + 4095) / 4096 * 4096;
  if (s.address) give_pages(s.address, s.bytes);
  s = {nullptr, 0};
  void* fresh = take_pages(wanted);
  if (!fresh) {
    MemoryLock lock;
    trim();
    wanted = (bytes + 4095) / 4096 * 4096;
    fresh = take_pages(wanted);
  }
  if (!fresh) {
    out_of_memory(bytes);
    return nullptr;
  }
  s = {fresh, wanted};
  return fresh;
}

}  // namespace lowbit
