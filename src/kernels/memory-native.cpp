// Pages from the system's allocator; huge ones for large blocks where Linux has them.
#include <stdlib.h>

#include <mutex>

#include "memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(_WIN32)
#include <malloc.h>
#endif

namespace lowbit {

namespace {
// Never destroyed: other environments may still free tensors while the process ends.
std::mutex& mutex() {
  static std::mutex* one = new std::mutex;
  return *one;
}
}  // namespace

MemoryLock::MemoryLock() { mutex().lock(); }
MemoryLock::~MemoryLock() { mutex().unlock(); }

void* take_pages(int64_t bytes) {
#if defined(_WIN32)
  return _aligned_malloc(static_cast<size_t>(bytes), 64);
#else
  constexpr size_t HUGE_PAGE = size_t{1} << 21;
  const bool huge = static_cast<size_t>(bytes) >= 2 * HUGE_PAGE;
  void* address = nullptr;
  if (posix_memalign(&address, huge ? HUGE_PAGE : 4096, static_cast<size_t>(bytes)) != 0) return nullptr;
#if defined(__linux__)
  if (huge) madvise(address, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  return address;
#endif
}

void give_pages(void* address, int64_t) {
#if defined(_WIN32)
  _aligned_free(address);
#else
  free(address);
#endif
}

}  // namespace lowbit
