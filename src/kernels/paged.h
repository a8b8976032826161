// Memory that the system may write out to a file and bring back, page by page; not counted by memory.h.
#pragma once
#include <stdint.h>

namespace lowbit {

// Zeros, of a file in this folder that nobody sees; null where there is no room, or no such memory (Windows).
void* allocate_paged(const char* folder, int64_t bytes);
// `bytes` as given to allocate_paged().
void release_paged(void* address, int64_t bytes);

}  // namespace lowbit
