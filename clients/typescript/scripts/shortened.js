// Names that the build makes short: only this package's own classes have them among themselves, and no frame, no option and no
// browser's object does.
const INTERNAL = `
  arrived asked beats beginRound canRefresh catchUp configure connectId deadAt dialed endSubscriptions expiresAt failAll
  fetchToken frameBytes greetBy handshakeMs hasMuchRoom hasRoom heard isAlive isBeingChecked isConnected
  isExhausted isGiven isNudged isPaused isRepeatable isSecure networkChanged nextAt nextId nudgeAt nudge phases replied trips smoothedMs look
  positionOf presenceChanged publishes refreshAt releaseAll replyMs requests resumeAt sendOn sendPublishes sendWaiting
  sentAt sentOn settle spare stateChanged switchTo tokenExpires trusted upAt upFailed wasSent withdraw woke
  purpose failures fault targets timeoutMs isClosed outgoing traffic courier isOver tookMs whenOver avoidedUntil worked
  address answer ask deliver dial ended expire failed frame isCongested link listen live needs parts payload problem promise
  refuse schedule until urls early plan reader refusal refused pacer tried isBehind filled taken reply lost tick stop expires only route since take frames opening fail choose due hasAny giveUp isTold stayUntil keyMs isConnected remembers
  isDead leaving leaveAgainAt newestSubscription confirm fate pass cancel addresses soonest begin leave restsUntil failedAt`;

export const SHORTENED = INTERNAL.trim().split(/\s+/);
