"""Response bodies of the `progress` route."""

from pydantic import Field

from api.a1111.schemas import A1111Body


class A1111State(A1111Body):
    """State of the current job."""

    skipped: bool = Field(description="Always false.", examples=[False])
    interrupted: bool = Field(description="Always false.", examples=[False])
    stopping_generation: bool = Field(description="Always false.", examples=[False])
    job: str = Field(
        description='Id of the current job; "" if there is none.',
        examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"],
    )
    job_count: int = Field(description="Number of the client's unfinished jobs.", examples=[1])
    job_timestamp: str = Field(
        description='Submission time of the current job; "0" if there is none.',
        examples=["20261123120000"],
    )
    job_no: int = Field(description="Always 0.", examples=[0])
    sampling_step: int = Field(description="Finished steps of the current job.", examples=[7])
    sampling_steps: int = Field(description="Total steps of the current job.", examples=[30])


class A1111Progress(A1111Body):
    """Progress of the client's current job. If there is none, `progress` and `job_count` are 0."""

    progress: float = Field(description="From 0 to 1.", ge=0, le=1, examples=[0.23])
    eta_relative: float = Field(description="Estimated seconds left.", examples=[2.1])
    state: A1111State = Field(
        description="State of the current job.",
        examples=[
            {
                "skipped": False,
                "interrupted": False,
                "stopping_generation": False,
                "job": "01JD6Z1Q8M4T0V7C2N5K9R3XWB",
                "job_count": 1,
                "job_timestamp": "20261123120000",
                "job_no": 0,
                "sampling_step": 7,
                "sampling_steps": 30,
            }
        ],
    )
    current_image: str | None = Field(
        description="The newest preview: a small WebP image in base64.", examples=["UklGRg…"]
    )
    textinfo: str | None = Field(
        description="How many jobs are queued before it; null once it runs.", examples=[None]
    )
    current_task: str | None = Field(
        description="Id of the current job.", examples=["01JD6Z1Q8M4T0V7C2N5K9R3XWB"]
    )
