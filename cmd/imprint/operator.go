package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/imprint-iot/imprint/awsapi/client"
)

// newOperatorClient makes a client of the server that a subcommand is meant
// for: that of the AWS variables, when they are set, as `imprint env` sets them,
// else that of the data directory on this machine.
func newOperatorClient(cmd *cobra.Command) (*client.Client, error) {
	fromEnv := client.Config{
		Endpoint: os.Getenv("AWS_ENDPOINT_URL_IOT"), KeyID: os.Getenv("AWS_ACCESS_KEY_ID"),
		Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Region: os.Getenv("AWS_REGION"), RootPath: os.Getenv("AWS_CA_BUNDLE"),
	}
	if !cmd.Flags().Changed("data") && fromEnv.Endpoint != "" && fromEnv.KeyID != "" {
		return client.New(fromEnv)
	}
	dir, err := cmd.Flags().GetString("data")
	if err != nil {
		return nil, err
	}
	facts, err := readServerFacts(dir)
	if err != nil {
		return nil, err
	}
	sealer, err := openSealer(dir, "", false)
	if err != nil {
		return nil, err
	}
	key, err := readOperatorKey(dir, sealer)
	if err != nil {
		return nil, err
	}
	return client.New(client.Config{
		Endpoint: facts.APIURL, KeyID: key.ID, Secret: key.Secret, Region: facts.Region, RootPath: facts.CABundle,
	})
}

// allPages gives all rows of a list; page reads those after a token, "" for the first,
// and the token of the next page, "" after the last. None are an empty list, not nil,
// which JSON shows as null.
func allPages[T any](page func(token string) (rows []T, next string, err error)) ([]T, error) {
	all := []T{}
	for token := ""; ; {
		rows, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// getAll gives all rows of a list that GET on a path gives in pages, as member of each.
func getAll[T any](ctx context.Context, c *client.Client, path string, query url.Values, member string) ([]T, error) {
	return allPages(func(token string) ([]T, string, error) {
		asked := url.Values{}
		maps.Copy(asked, query)
		if token != "" {
			asked.Set("nextToken", token)
		}
		var page map[string]json.RawMessage
		err := c.Call(ctx, "GET", path+"?"+asked.Encode(), nil, &page)
		if err != nil {
			return nil, "", err
		}
		var rows []T
		err = json.Unmarshal(page[member], &rows)
		if err != nil {
			return nil, "", fmt.Errorf("couldn't read the server's list of %s: %w", member, err)
		}
		var next string
		if raw, more := page["nextToken"]; more {
			err = json.Unmarshal(raw, &next)
		}
		if err != nil {
			return nil, "", fmt.Errorf("couldn't read the token of the next page: %w", err)
		}
		return rows, next, nil
	})
}
