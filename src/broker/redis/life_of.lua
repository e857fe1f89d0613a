-- Answers {life, the log's last id when the life began, the log's last id}.
return { life, born, last_log_id() }
