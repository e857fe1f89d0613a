-- Before scripts that tell what of other regions is here, behind `stream_id.lua`.

-- In which life of another region's log a cursor is that has got so far that nothing of lives before is to come.
local function reached_life(cursor)
  local of, id, born = string.match(cursor, '^(%S+) (%d+%-%d+) %d+ (%d+%-%d+)')
  if of and not is_before(id, born) then
    return of
  end
end
