// Memory of a file that has no name any more: where memory gets short the system writes its pages out and brings them
// back when they are touched.
#include "paged.h"

#if !defined(_WIN32)
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#endif

namespace lowbit {

#if defined(_WIN32)

void* allocate_paged(const char*, int64_t) { return nullptr; }
void release_paged(void*, int64_t) {}

#else

namespace {

// The whole file at once: a page that finds the disk full later would end the process.
bool reserve(int file, int64_t bytes) {
#if defined(__linux__)
  return posix_fallocate(file, 0, static_cast<off_t>(bytes)) == 0;
#elif defined(__APPLE__)
  fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, static_cast<off_t>(bytes), 0};
  return fcntl(file, F_PREALLOCATE, &store) == 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0;
#else
  return ftruncate(file, static_cast<off_t>(bytes)) == 0;
#endif
}

}  // namespace

void* allocate_paged(const char* folder, int64_t bytes) {
  if (bytes < 1 || bytes > int64_t{1} << 46) return nullptr;
  std::string path = std::string(folder) + "/lowbit-pages-XXXXXX";
  const int file = mkstemp(&path[0]);
  if (file < 0) return nullptr;
  unlink(path.c_str());
  void* address = MAP_FAILED;
  if (reserve(file, bytes)) {
    address = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  close(file);
  return address == MAP_FAILED ? nullptr : address;
}

void release_paged(void* address, int64_t bytes) { munmap(address, static_cast<size_t>(bytes)); }

#endif

}  // namespace lowbit
