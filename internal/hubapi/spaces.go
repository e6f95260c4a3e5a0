package hubapi

import (
	"errors"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"spacehost/internal/identity"
	"spacehost/internal/people"
)

// Space is what Hub clients may know about a Space of this host. It has no owner: any owner in a path matches.
type Space struct {
	Name, Title, SDKVersion string
	URL                     string // where visitors reach it
	Stage                   string // in the Hub's terms
	Hardware                string // in the Hub's terms
	Private                 bool
}

// info is the answer of the Hub's GET /api/spaces/{owner}/{name}, with the fields of huggingface_hub's SpaceInfo.
type info struct {
	ID        string         `json:"id"`
	Author    string         `json:"author"`
	Private   bool           `json:"private"`
	Disabled  bool           `json:"disabled"`
	Gated     bool           `json:"gated"`
	SDK       string         `json:"sdk"`
	Host      string         `json:"host"`
	Subdomain string         `json:"subdomain"`
	Likes     int            `json:"likes"`
	Tags      []string       `json:"tags"`
	Siblings  []any          `json:"siblings"`
	CardData  map[string]any `json:"cardData"`
	Runtime   runtime        `json:"runtime"`
}

type runtime struct {
	Stage    string         `json:"stage"`
	Hardware map[string]any `json:"hardware"`
	Timeout  *int           `json:"gcTimeout"`
	Storage  *string        `json:"storage"`
}

func (s Space) runtime() runtime {
	return runtime{Stage: s.Stage, Hardware: map[string]any{"current": s.Hardware, "requested": s.Hardware}}
}

// registerSpaces mounts the routes by which gradio_client and huggingface_hub connect by name (gradio_client/client.py,
// _space_name_to_src and _get_space_state; huggingface_hub/hf_api.py, whoami). Other routes of the Hub are refused.
func (a *API) registerSpaces(e *echo.Echo) {
	e.GET("/api/whoami-v2", a.whoami)
	e.GET("/api/spaces/:owner/:name", a.space(func(s Space, owner string) any {
		return info{
			ID: owner + "/" + s.Name, Author: owner, Private: s.Private, SDK: "gradio", Host: s.URL, Subdomain: s.Name,
			Tags: []string{"gradio"}, Siblings: []any{}, CardData: map[string]any{"title": s.Title, "sdk": "gradio", "sdk_version": s.SDKVersion},
			Runtime: s.runtime(),
		}
	}))
	e.GET("/api/spaces/:owner/:name/runtime", a.space(func(s Space, _ string) any { return s.runtime() }))
	e.GET("/api/spaces/:owner/:name/host", a.space(func(s Space, _ string) any {
		return map[string]string{"host": s.URL, "subdomain": s.Name}
	}))
	for _, path := range []string{"/:repo/resolve/*", "/:owner/:repo/resolve/*", "/:kind/:owner/:repo/resolve/*"} {
		e.Any(path, noFiles)
	}
	for _, path := range []string{"/api/*", "/:owner/:repo/info/lfs/*", "/oauth/*"} {
		e.Any(path, notTheHub)
	}
}

// whoami shows the person of a token. A token of Hugging Face counts as no token.
func (a *API) whoami(c echo.Context) error {
	caller, err := a.config.Payers.ConsoleIdentity(c.Request())
	var unknown *people.UnknownTokenError
	switch {
	case errors.As(err, &unknown):
		return refuse(c, http.StatusUnauthorized, "", unknown.Error())
	case err != nil:
		return err
	case caller.Kind != identity.User:
		return refuse(c, http.StatusUnauthorized, "", "this request has no token of this host; create one with `spacehost token create NAME`")
	}
	tier, err := a.config.Payers.Allowance(c.Request().Context(), caller)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{
		"type": "user", "id": caller.Key(), "name": caller.Name, "fullname": caller.Name, "isPro": tier.Authenticated == "pro", "orgs": []any{},
		"auth": map[string]any{"type": "access_token", "accessToken": map[string]string{"displayName": "spacehost", "role": "read"}},
	})
}

// space answers with a view of a Space that is visible to the caller. Any other Space is not found, as on the Hub.
func (a *API) space(view func(s Space, owner string) any) echo.HandlerFunc {
	return func(c echo.Context) error {
		caller, err := a.config.Payers.ConsoleIdentity(c.Request())
		var unknown *people.UnknownTokenError
		if errors.As(err, &unknown) {
			return refuse(c, http.StatusUnauthorized, "", unknown.Error())
		}
		if err != nil {
			return err
		}
		s, ok := a.config.Spaces.HubSpace(caller, strings.ToLower(c.Param("name")))
		if !ok {
			return refuse(c, http.StatusNotFound, "RepoNotFound", "this host has no Space of that name (this is spacehost and not the Hub)")
		}
		return c.JSON(http.StatusOK, view(s, c.Param("owner")))
	}
}

// onlySpaces explains the refusal of every other route.
const onlySpaces = "this is spacehost and not the Hub: it serves the Spaces that run here, and no models, data sets or files; " +
	"to use the Hub, unset HF_ENDPOINT, or leave --by-name out"

// notTheHub answers 501: clients do not retry it, and do not read it as "not found".
func notTheHub(c echo.Context) error { return refuse(c, http.StatusNotImplemented, "", onlySpaces) }

// noFiles answers that the repository does not exist. For any other error huggingface_hub reports "check your connection"
// (file_download.py, _raise_on_head_call_error).
func noFiles(c echo.Context) error { return refuse(c, http.StatusNotFound, "RepoNotFound", onlySpaces) }

// refuse writes the text to the header that huggingface_hub shows (utils/_http.py, hf_raise_for_status), and to the body.
func refuse(c echo.Context, status int, code, text string) error {
	h := c.Response().Header()
	h.Set("X-Error-Message", text)
	if code != "" {
		h.Set("X-Error-Code", code)
	}
	return c.JSON(status, map[string]string{"error": text})
}
