// Names that the build makes short: only this package's own classes have them among themselves, and no frame, no option and no
// browser's object does.
const INTERNAL = `
  address addresses answer arrived ask asked asking avoidedUntil beats begin body beginRound canRefresh cancel catchUp choose configure
  confirm connectId credit deadAt deliver dial dialed due early ended expire expires expiresAt fail failAll failed
  failedAt failures fault fetchToken filled frame frameBytes frames giveUp greetBy handshakeMs hasAny hasMuchRoom hasRoom
  heard heardAt isBehind isClosed isCongested isConnected isDead isDoubted isDrained isExhausted isGiven isJoined isOver isOwn isPaused isRepeatable
  isSecure isTold later leave leaveAgainAt leaving link listen live look lost needs networkChanged newestSubscription nextAt nextId
  opening pace pacer parts pass phases plan positionOf presenceChanged problem promise publishes purpose
  reader refreshAt refusal refuse refused releaseAll remembers replied requests restsUntil resumeAt route schedule
  sendOn sendPublishes sendWaiting sentAt sentOn settle since smoothedMs soonest spare stateChanged stayUntil stop take taken
  targets tick timeoutMs silentSince isSpared renew current rtoMs backOff pause tokens former doubtsFrom tookMs traffic tried trips trusted until upFailed urls waitsSince whenOver withdraw woke
  worked`;

export const SHORTENED = INTERNAL.trim().split(/\s+/);
