local function added()
  if redis.call('EXISTS', KEYS[2]) == 0 then
    return 0
  end
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for index = 1, #info, 2 do
    if info[index] == 'entries-added' then
      return info[index + 1]
    end
  end
  return 0
end

-- Answers {life, the log's last id when the life began, the log's last id, how many entries it was ever given}.
return { life, born, last_log_id(), added() }
