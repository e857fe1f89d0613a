/** React: a hook for a channel, and a chat that uses it. */
import type { Publication, SkywaveClient } from 'skywave';
import { useCallback, useEffect, useState } from 'react';

/** The channel's last publications, oldest first, and how to publish. */
export function useChannel<Message>(client: SkywaveClient, name: string, history = 50) {
  const [publications, setPublications] = useState<readonly Publication<Message>[]>([]);
  useEffect(() => {
    const listening = new AbortController();
    setPublications([]);
    client.channel<Message>(name, { history }).on(
      'publication',
      (publication) => {
        setPublications((before) => [...before, publication].slice(-history));
      },
      { signal: listening.signal },
    );
    // The last listener to go unsubscribes; a remount within the same task notices nothing.
    return () => {
      listening.abort();
    };
  }, [client, name, history]);
  const publish = useCallback((data: Message) => client.channel<Message>(name).publish(data), [client, name]);
  return { publications, publish };
}

export function Chat({ client }: { client: SkywaveClient }) {
  const { publications, publish } = useChannel<{ text: string }>(client, 'chat:1');
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        const text = new FormData(event.currentTarget).get('text');
        if (typeof text === 'string') void publish({ text });
        event.currentTarget.reset();
      }}
    >
      <ol>
        {publications.map(({ origin, epoch, offset, data }) => (
          <li key={`${origin} ${epoch} ${offset}`}>{data.text}</li>
        ))}
      </ol>
      <input name="text" />
    </form>
  );
}
