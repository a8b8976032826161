// int2: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

using Int2 = Either<Integer<2, false>, Integer<2, true>>;

}  // namespace lowbit::LOWBIT_BODY
