// int3: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

using Int3 = Either<Integer<3, false>, Integer<3, true>>;

}  // namespace lowbit::LOWBIT_BODY
