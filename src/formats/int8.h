// int8: see integer.ts for the byte layout.
#pragma once
#include "integer.h"

namespace lowbit::LOWBIT_BODY {

using Int8 = Either<Integer<8, false>, Integer<8, true>>;

}  // namespace lowbit::LOWBIT_BODY
