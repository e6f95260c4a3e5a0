package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"spacehost/internal/config"
	"spacehost/internal/control"
	"spacehost/internal/views"
)

// completeTime bounds a question to the host after the Tab key.
const completeTime = 2 * time.Second

// complete returns a completion of the first argument: what the host on the command's state folder answers. Without a host
// there is nothing to offer.
func complete[T any](question control.Endpoint[control.NoBody, T], options func(T) []cobra.Completion) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		answer, err := ask(c, question)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return options(answer), cobra.ShellCompDirectiveNoFileComp
	}
}

func ask[T any](c *cobra.Command, question control.Endpoint[control.NoBody, T]) (answer T, err error) {
	flag, _ := c.Flags().GetString("state") // a command without the flag uses the default
	state, err := config.StateFolder(flag)
	if err != nil {
		return answer, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), completeTime)
	defer cancel()
	return answerOf[T](ctx, state, question.Request(control.NoBody{}))
}

// Completions of running things.
var (
	completeSpace = complete(control.ShowHealth, func(health views.Health) (all []cobra.Completion) {
		for _, s := range health.Spaces {
			all = append(all, cobra.CompletionWithDesc(s.Name, s.Stage))
		}
		return all
	})
	completePerson = complete(control.ListPeople, func(people []control.Person) (all []cobra.Completion) {
		for _, p := range people {
			all = append(all, cobra.CompletionWithDesc(p.Name, "tier "+p.Tier))
		}
		return all
	})
	completeToken = complete(control.ListTokens, func(tokens []control.Token) (all []cobra.Completion) {
		for _, t := range tokens {
			if t.RevokedAt == nil {
				all = append(all, cobra.CompletionWithDesc(t.ID, "of "+t.Person+" "+t.Label))
			}
		}
		return all
	})
	completeGPU = complete(control.ListGPUs, func(gpus []control.GPU) (all []cobra.Completion) {
		for _, g := range gpus {
			all = append(all, cobra.CompletionWithDesc(string(g.UUID), gpuName(g)+nodeSuffix(g.Node)))
		}
		return all
	})
	completeNode = complete(control.ListNodes, func(nodes []control.Node) (all []cobra.Completion) {
		for _, n := range nodes {
			all = append(all, cobra.CompletionWithDesc(n.Name, nodeState(n, time.Now())))
		}
		return all
	})
	completeBalance = complete(control.ListBalances, func(balances []control.Balance) (all []cobra.Completion) {
		for _, b := range balances {
			all = append(all, cobra.CompletionWithDesc(b.Identity, "tier "+b.Tier))
		}
		return all
	})
)

// completeAccount offers the accounts with a line in the ledger, and those of the other people.
func completeAccount(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
	all, directive := completeBalance(c, args, start)
	people, _ := completePerson(c, args, start)
	for _, person := range people {
		if account := "user:" + person; !slices.Contains(all, account) {
			all = append(all, account)
		}
	}
	return all, directive
}
