/** Vue: a composable for a channel. */
import type { Member, Publication, SkywaveClient } from 'skywave';
import { onScopeDispose, type Ref, shallowRef } from 'vue';

/** The channel's last publications and who is there, as long as the component lives. */
export function useChannel<Message>(client: SkywaveClient, name: string, history = 50) {
  const publications: Ref<readonly Publication<Message>[]> = shallowRef([]);
  const members: Ref<readonly Member[]> = shallowRef([]);
  const channel = client.channel<Message>(name, { history, presence: true });
  const listening = new AbortController();
  const { signal } = listening;
  channel.on(
    'publication',
    (publication) => {
      publications.value = [...publications.value, publication].slice(-history);
    },
    { signal },
  );
  channel.on(
    'presence',
    (presence) => {
      members.value = presence.members;
    },
    { signal },
  );
  onScopeDispose(() => {
    listening.abort();
  });
  return { publications, members, publish: (data: Message) => channel.publish(data) };
}
