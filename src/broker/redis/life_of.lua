-- Answers {life, the log's last id when the life began, the log's last id, how many entries it was ever given}.
local log = log_info()
return { life, born, log['last-generated-id'], log['entries-added'] }
