// trellis3: see trellis.ts for the byte layout.
#pragma once
#include "trellis.h"

namespace lowbit::LOWBIT_BODY {

using Trellis3 = Trellis<3>;

}  // namespace lowbit::LOWBIT_BODY
