// trellis2: see trellis.ts for the byte layout.
#pragma once
#include "trellis.h"

namespace lowbit::LOWBIT_BODY {

using Trellis2 = Trellis<2>;

}  // namespace lowbit::LOWBIT_BODY
