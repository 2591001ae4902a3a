-- What the statuses of record.lua are called: a coupon's in answers and in the ledger, and a redemption's.
local STATUS_WORDS = { 'issued', 'reserved', 'redeemed', 'expired', 'deactivated' }
local LEDGER = { 'outstanding', 'reserved', 'redeemed', 'expired', 'deactivated' }
local REDEMPTION_WORDS = { 'reserved', 'committed', 'released', 'rolled_back' }
